"""Files and arrays on a disk, and objects in a bucket."""
