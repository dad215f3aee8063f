/* Everything that is compiled for each level. */
#include "vector.h"
#include "bits.h"
#include "screen.h"
#include "pairs.h"
#include "stream.h"
#include "bracket.h"
#include "finish.h"
#include "select.h"
#include "scores.h"
#include "lengths.h"
#include "sums.h"
#include "mutual.h"
#undef LEVEL
#undef WIDTH
#undef AMX
#undef LANES
#undef PARTS
