/* The fingerprint of the sources that this object was made from (onca.engine.build), so that a stale object is seen. */
extern const char onca_built[];
const char onca_built[] = ONCA_BUILT;
