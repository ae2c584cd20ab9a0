"""Remote data: addresses, requests, and the cache on local disk that holds what was fetched."""
