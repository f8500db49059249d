"""Reports: results.py reads what was measured, tables/ and figures/ show it, html.py makes the page of a study."""
