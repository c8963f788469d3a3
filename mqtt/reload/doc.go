// Package reload notices that files have changed, such as certificates and passwords, so that they can be read anew
// while the broker runs.
//
// It promises to look at most once a second, whoever asks and however often, and to miss no change: a file that was
// written twice within the grain of its clock is read twice.
//
// There are no goroutines here. Who uses the files asks before it does.
package reload
