"""Reading, writing, hashing and downloading files: the one door between the program and the disk."""
