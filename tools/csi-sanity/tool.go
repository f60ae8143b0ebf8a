//go:build tools

// Package sanity pins csi-sanity, the test of CSI drivers that Kubernetes's storage group keeps. It is a module of its own so
// that what it needs stays out of Holdfast's. The tests of isolator/csiplugin build it.
package sanity

import _ "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
