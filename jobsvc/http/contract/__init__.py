"""F3: the contract of the API, made from the table of routes: the OpenAPI document, and the page of it for people."""
