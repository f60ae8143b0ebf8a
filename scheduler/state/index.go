package state

// index is rebuilt by Apply; helper functions below read it.
type index struct{}
