// Package v1 is the part of the API that Marathon has no place for: instances, volumes, claims, nodes, explanations, logs and
// changes as they happen. Its types are those of package client.
package v1
