package main

import (
	"embed"
	"io/fs"
	"net/http"
)

// The page, as built by `make web`. It is committed, so that nobody needs Node
// to run the example.
//
//go:embed web/dist
var files embed.FS

// policy lets the page load and reach nothing but this server.
const policy = "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"

// page serves the page.
func page() http.Handler {
	dist, err := fs.Sub(files, "web/dist")
	if err != nil {
		panic(err) // the path above is wrong
	}
	pages := http.FileServerFS(dist)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache") // a new build shows at the next reload
		pages.ServeHTTP(w, r)
	})
}
