"""Tables of a study, one file each: class Report."""
