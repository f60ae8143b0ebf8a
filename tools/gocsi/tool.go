//go:build tools

// Package gocsi pins gocsi's mock, a CSI plugin that keeps volumes in memory and speaks CSI as of 1.1. It is a module of its own so that
// what it needs stays out of Holdfast's. The tests of isolator/driver/csi build it.
package gocsi

import _ "github.com/rexray/gocsi/mock"
