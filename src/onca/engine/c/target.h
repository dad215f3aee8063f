/* FN(name): a function of the level that is being compiled; TARGET: with the instructions that level may use. */
#ifndef ONCA_TARGET
#define ONCA_TARGET
#define JOINED(name, which) name##_##which
#define JOIN(name, which) JOINED(name, which)
#define FN(name) JOIN(name, LEVEL)
#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define TARGET(list) PRAGMA(clang attribute push(__attribute__((target(list))), apply_to = function))
#define TARGET_END PRAGMA(clang attribute pop)
#else
#define TARGET(list) PRAGMA(GCC push_options) PRAGMA(GCC target(list))
#define TARGET_END PRAGMA(GCC pop_options)
#endif
#endif
