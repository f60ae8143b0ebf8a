package pool

import (
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/isolator/driver"
)

// Network file systems, by the magic number that statfs gives.
var networkMagic = map[int64]bool{
	0x6969: true, 0xff534d42: true, 0xfe534d42: true, 0x00c36400: true, 0x0bd00bd0: true, 0x01021997: true, 0x7461636f: true, 0x01161970: true,
}

// scopeOf guesses from the file system whether other nodes see a directory. A guess of node is safe: the volume only stays
// where it is.
func scopeOf(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && networkMagic[int64(uint32(st.Type))] {
		return driver.ScopeCluster
	}
	return driver.ScopeNode
}
