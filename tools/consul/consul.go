//go:build tools

// Package consul pins the Consul server that the tests run: it is built from its Go module, in a module of its own so that
// none of its dependencies reach ours. `make consul` builds it once into the user's cache folder.
package consul

import _ "github.com/hashicorp/consul"
