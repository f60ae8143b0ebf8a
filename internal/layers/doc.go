// Package layers holds no code, only tests over the import graph: which room may not know which, and why. docs/architecture.md
// shows the rooms; when a test here fails, either the import is wrong or that page is.
package layers
