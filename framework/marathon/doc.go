// Package marathon is the app definition of Marathon: its types, how they are read from JSON, how the
// forms of older versions are migrated, the defaults, the rules with Marathon's paths and texts, and how an app is printed. It does no I/O.
//
// An app goes through the stages that Marathon's does, and each stage reports all of its own errors together:
//
//	document.Parse -> decode -> rules of the old forms -> migrate -> rules -> defaults -> rules on the whole
//
// Read does all of that for a whole app, ReadUpdate and Update.Apply for one whose fields replace those of another.
// Unsupported then names what this version cannot run, and Spec converts to what the scheduler works on.
// Holdfast's own additions: more than one instance with external volumes, `{ordinal}` in volume names, sizes with a unit, `unprotected`.
package marathon
