"""Convert the label formats of other tools to COCO instances files, one file each."""
