"""The facts as frozen records: features, methods, runs, engines, and the file that holds them."""
