//go:build !race

package front_test

const underRaceDetector = false
