"""One self-contained HTML page about a folder of results: :func:`sparsespike.energy.report.page.write_report`."""
