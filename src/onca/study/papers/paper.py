"""Moved to `onca.study.judge`; here until the command line imports it from there."""

from onca.study.judge import words as words
