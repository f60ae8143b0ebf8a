package registers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/holdfast-io/holdfast/framework/store"
)

const leaders = "leaders/"

func leaderKey(cluster string) string { return leaders + cluster }

func statePrefix(cluster string) string { return "state/" + cluster + "/" }

func journalPrefix(cluster string) string { return "journal/" + cluster + "/" }

// registerKey names the register of a record. Registers' names have fewer characters and bytes than store keys, so the name only shows
// what a person looks for; the hash makes it unique, and the key itself stands in the value.
func registerKey(cluster, key string) string {
	rest := strings.TrimPrefix(key, store.Prefix(cluster))
	sum := sha256.Sum256([]byte(key))
	folder, name := "", rest
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		folder, name = plain(rest[:i])+"/", rest[i+1:]
	}
	if len(folder) > 60 {
		folder = "deep/" + hex.EncodeToString(sum[:1]) + "/"
	}
	return statePrefix(cluster) + folder + plain(name[:min(len(name), 50)]) + "." + hex.EncodeToString(sum[:20])
}

// plain puts '_' for what a register's name may not hold.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '/' {
			return r
		}
		return '_'
	}, s)
}

// pack makes the value of a record's register, unpack reads it; !ok for what pack did not make.
func pack(key string, value []byte) []byte {
	out := make([]byte, 0, len(key)+1+len(value))
	out = append(out, key...)
	out = append(out, '\n')
	return append(out, value...)
}

func unpack(cluster, register string, raw []byte) (key string, value []byte, ok bool) {
	k, v, ok := bytes.Cut(raw, []byte{'\n'})
	key = string(k)
	if !ok || store.CheckKey(cluster, key) != nil || registerKey(cluster, key) != register {
		return "", nil, false
	}
	return key, v, true
}
