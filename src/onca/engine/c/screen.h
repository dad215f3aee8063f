/* Screening in 8 bits. */
