"""Reports, one file a table or figure: class Report. The file is the registration."""
