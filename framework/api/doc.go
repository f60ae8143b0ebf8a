// Package api is the REST API of the framework: Marathon's /v2, Holdfast's own /v1, and the web page at /.
//
// It decides nothing: it reads the state under the Core's read lock, turns requests into commands for Core.Do, and
// prints. What comes in is bounded in size and time; a request whose Host or Origin is not ours is refused, because a
// page in somebody's browser can reach a service on the loopback address too.
package api
