package embedded

import (
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// checkOps refuses what no correct client sends.
func checkOps(ops []lease.Op) error {
	if len(ops) == 0 || len(ops) > MaxOps {
		return fault.New(fault.Invalid, "a transaction has 1 to %d operations, not %d", MaxOps, len(ops))
	}
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		if err := checkKey(op.Key); err != nil {
			return err
		}
		switch {
		case seen[op.Key]:
			return fault.New(fault.Invalid, "register %s appears twice in one transaction", op.Key)
		case op.Kind != lease.OpCheck && op.Kind != lease.OpPut && op.Kind != lease.OpDelete:
			return fault.New(fault.Invalid, "operation %q on register %s is not known", op.Kind, op.Key)
		case op.Kind == lease.OpDelete && op.Expect == 0:
			return fault.New(fault.Invalid, "register %s: deletion of what does not exist", op.Key)
		case len(op.Value) > MaxValue:
			return fault.New(fault.Invalid, "register %s: value of %d bytes is larger than %d", op.Key, len(op.Value), MaxValue)
		}
		seen[op.Key] = true
	}
	return nil
}

func checkKey(key string) error {
	if key == "" || strings.HasPrefix(key, "/") || strings.HasSuffix(key, "/") {
		return fault.New(fault.Invalid, "register key %q must neither be empty nor begin or end with '/'", key)
	}
	return checkPrefix(key)
}

func checkPrefix(prefix string) error {
	if len(prefix) > MaxKey {
		return fault.New(fault.Invalid, "register key of %d bytes is longer than %d", len(prefix), MaxKey)
	}
	for _, part := range strings.Split(strings.TrimSuffix(prefix, "/"), "/") {
		if part == "." || part == ".." || strings.ContainsFunc(part, notKeyRune) {
			return fault.New(fault.Invalid, "register key %q may only hold letters, digits, '.', '_', '-' and single '/'", prefix)
		}
	}
	if strings.Contains(prefix, "//") {
		return fault.New(fault.Invalid, "register key %q has an empty part", prefix)
	}
	return nil
}

func notKeyRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
}
