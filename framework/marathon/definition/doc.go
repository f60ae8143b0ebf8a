// Package definition is the shape of an app: its types, how they are read from JSON with Marathon's errors for what is of the
// wrong type, missing or out of bounds, and how an app is printed, in Marathon's order and with its omissions.
// The forms of older versions are read too and kept apart until they are migrated.
package definition
