// A registry with the referrers API, which Debian's docker-registry lacks: `referrers ADDRESS`. All it holds is in memory.
package main

import (
	"io"
	"log"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	// Lines as docker-registry writes them: "GET /v2/…
	access := log.New(os.Stderr, "", 0)
	handler := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	logged := func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		access.Printf("\"%s %s HTTP/1.1\"", r.Method, r.URL)
	}
	log.Fatal(http.ListenAndServe(os.Args[1], http.HandlerFunc(logged)))
}
