package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A --pool flag is a directory and options; what looks like an option and is none is named, and no pool is made in a directory of that name.
func TestPoolFlag(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "p, of pools")
	drivers, err := openPools([]string{"pool=" + at + ",backend=dir,scope=cluster,fsck=ask,copies=full,key-command=cat /etc/key"}, dir, "node", time.Hour)
	if err != nil || len(drivers) != 1 || drivers[0].Name() != "pool" {
		t.Fatalf("%v %v", drivers, err)
	}
	for flag, says := range map[string]string{
		"pool":                               "NAME=DIR",
		"pool=" + dir + "/x,key-flie=/k":     "is no option",
		"pool=" + dir + "/x,copies=some":     "copies=some",
		"pool=" + dir + "/x,size=many":       "size",
		"pool=" + dir + "/x,fsck=perhaps":    "perhaps",
		"pool=" + dir + "/x,key-file=key":    "absolute",
		"pool=" + dir + "/x,fs=xfs":          "fs=xfs",
		"pool=" + dir + "/x,backend=zfs":     "zfs",
		"pool=" + dir + "/x,scope=universe":  "universe",
		"../pool=" + dir + "/x,backend=dir":  "driver",
		"pool=" + dir + "/x\n,backend=dir":   "not an absolute path",
		"pool=" + dir + "/x,backend=dir,y=z": "is no option",
	} {
		if _, err := openPools([]string{flag}, dir, "node", time.Hour); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", flag, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "x,*")); len(left) > 0 {
		t.Errorf("made %v", left)
	}
}
