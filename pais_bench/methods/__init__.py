"""Methods, one file each: class Options, class Method. The file is the registration."""
