// Package dev runs a whole cluster on one machine, for `holdfast dev`: it holds the embedded Mesos engine and the lease authority
// in its own process, starts and supervises the framework and one node helper per agent as child processes, and can kill, cut off
// and restart any of them on request, as failures would. Everything it knows lies under one directory; starting again on the
// same directory resumes.
package dev
