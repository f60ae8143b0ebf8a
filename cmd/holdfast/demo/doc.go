// Package demo is `holdfast demo`: it runs a real cluster of three agents in a process of its own, lets three instances of
// examples/records write, kills an agent with everything on it, moves and scales, kills the framework in the middle of a
// scaling, and in the end compares every acknowledged record with what the volumes hold. It prints what it checked.
package demo
