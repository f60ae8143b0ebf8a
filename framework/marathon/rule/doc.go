// Package rule holds what must be true of an app, with Marathon's paths and texts: Given for what a user wrote (old forms
// migrated), Whole for what follows from one field for another once the defaults are filled in. Rules note problems and change nothing.
package rule
