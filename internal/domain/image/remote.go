package image

import "github.com/moby/moby/api/types/registry"

// Access is how a client may reach a repository of a registry.
type Access struct {
	// Auth is nil or empty for anonymous access.
	Auth *registry.AuthConfig
	// Headers are sent with every request (X-Meta-*).
	Headers map[string][]string
}
