// Package show writes what the log holds, for people and for programs.
//
// It promises that nothing a client has sent can command the terminal in text
// form: what is not printable is escaped. JSON is one object per line and
// loses nothing: a payload that is not text comes as base64 and says so.
package show
