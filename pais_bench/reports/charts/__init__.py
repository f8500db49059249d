"""Interactive figures of the page, one file for each figure that has one: functions from frames to charts."""
