// Package examples holds apps that run: their JSON, programs and scripts, one directory each. It has no code of its own, only the
// tests that load, plan and run them.
package examples
