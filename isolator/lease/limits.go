package lease

import (
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// The limits of every authority: the smallest of what ZooKeeper (1 MiB a request), Consul (128 operations, 512 KiB) and the
// embedded one take, with room for what an implementation adds to a transaction of its own.
const (
	MaxOps   = 62 // Consul counts deletions twice
	MaxKey   = 256
	MaxValue = 272 << 10
)

// CheckOps refuses the operations of a transaction that no correct caller asks for (Invalid): none or too many, bad keys, a key
// twice, an unknown kind, a deletion of what is expected not to exist, a value that is too large.
func CheckOps(ops []Op) error {
	if len(ops) == 0 || len(ops) > MaxOps {
		return fault.New(fault.Invalid, "a transaction has 1 to %d operations, not %d", MaxOps, len(ops))
	}
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		if err := CheckKey(op.Key); err != nil {
			return err
		}
		switch {
		case seen[op.Key]:
			return fault.New(fault.Invalid, "register %s appears twice in one transaction", op.Key)
		case op.Kind != OpCheck && op.Kind != OpPut && op.Kind != OpDelete:
			return fault.New(fault.Invalid, "operation %q on register %s is not known", op.Kind, op.Key)
		case op.Kind == OpDelete && op.Expect == 0:
			return fault.New(fault.Invalid, "register %s: deletion of what does not exist", op.Key)
		case len(op.Value) > MaxValue:
			return fault.New(fault.Invalid, "register %s: value of %d bytes is larger than %d", op.Key, len(op.Value), MaxValue)
		}
		seen[op.Key] = true
	}
	return nil
}

// CheckKey refuses what is not a register's key (Invalid).
func CheckKey(key string) error {
	if key == "" || strings.HasPrefix(key, "/") || strings.HasSuffix(key, "/") {
		return fault.New(fault.Invalid, "register key %q must neither be empty nor begin or end with '/'", key)
	}
	return CheckPrefix(key)
}

// CheckPrefix refuses what is not the beginning of a key (Invalid).
func CheckPrefix(prefix string) error {
	if len(prefix) > MaxKey {
		return fault.New(fault.Invalid, "register key of %d bytes is longer than %d", len(prefix), MaxKey)
	}
	if strings.Contains(prefix, "//") {
		return fault.New(fault.Invalid, "register key %q has an empty part", prefix)
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(prefix, "/"), "/") {
		if part == "." || part == ".." || strings.ContainsFunc(part, notKeyRune) {
			return fault.New(fault.Invalid, "register key %q may only hold letters, digits, '.', '_', '-' and single '/'", prefix)
		}
	}
	return nil
}

func notKeyRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}
