// Package configs is what can be configured: one typed tree for each of the three programs in drover (worker, coordinator,
// client), their defaults, what makes a value impossible, and the commented sample files.
//
// A value comes from the file, is overruled by the environment (DROVER_ and the key in capitals, dots as underscores) and
// that by a flag. Nothing is guessed: an unknown key, a value of the wrong type or an impossible one is an error that names
// the key and where the value stands. Samples say what each key means and are tested to equal the defaults.
//
// The package opens no connection and makes no directory. Start reading with Worker, then Load.
package configs
