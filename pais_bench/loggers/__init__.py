"""Send the numbers of a training's log to a service that shows them; a file each, imported when it is asked for."""
