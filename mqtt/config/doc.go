// Package config reads the one TOML file that says how the broker runs.
//
// It promises:
//
//   - Nothing in the file is ignored. A key, table or CAIRNMQ_ variable that the broker does not know is
//     refused, with the nearest known name.
//   - All problems come at once, each with its line and column, so that a file is mended in one round. Only a
//     file that is not TOML at all stops at its first syntax error.
//   - A Config that Load or Parse returned is complete and consistent: every key has a value within its range,
//     filters are valid, no two servers share an address, and every packet fits in a segment.
//   - Load also reads the files that a server needs, such as its certificate (files.go), and complains of them at
//     the key that names them. Package listener reads them anew with the same code.
//   - The example file, the reference page docs/configuration.md and the names of the environment variables come
//     from one table, in keys.go, so they cannot say different things.
//
// The environment wins over the file, and the file over the defaults.
package config
