package keyring

import (
	"cmp"
	"fmt"
	"time"
)

// The defaults and bounds of rotation.
const (
	defaultRotateEvery = 90 * 24 * time.Hour
	defaultAnnounceFor = 24 * time.Hour

	// minRotateEvery bounds how many past keys there can be.
	minRotateEvery = time.Hour
	// minAnnounceFor leaves every node time to read a key several times before
	// it signs.
	minAnnounceFor = 5 * time.Second

	// readsPerAnnouncement is how often a node reads storage while a key is
	// announced.
	readsPerAnnouncement = 5
	maxRefreshInterval   = 30 * time.Second
	maxJWKSAge           = 5 * time.Minute
)

const (
	// clockTolerance is how far the clock of a node may be off.
	clockTolerance = 5 * time.Minute
	// publishedSlack is how much longer a past key is published than its last
	// token lasts, because one clock may be ahead and another behind.
	publishedSlack = 2 * clockTolerance
	// deletionSlack is how much longer a key stays in storage than in the
	// JWKS, so that a node whose clock is hours ahead deletes nothing that is
	// needed.
	deletionSlack = 24 * time.Hour
	// retirementKept is how long storage remembers that a key is retired, for
	// nodes that cannot read it meanwhile.
	retirementKept = 30 * 24 * time.Hour

	// minLongestToken is the lifetime of tokens that every key allows for, so
	// that most configurations never have to record a longer one.
	minLongestToken = time.Hour
	// maxLongestToken keeps sums of times in range.
	maxLongestToken = 100 * 365 * 24 * time.Hour
)

// CheckRotation returns what is wrong with the settings of rotation. Zero
// means the default.
func CheckRotation(rotateEvery, announceFor time.Duration) error {
	rotateEvery, announceFor = cmp.Or(rotateEvery, defaultRotateEvery), cmp.Or(announceFor, defaultAnnounceFor)
	if err := cmp.Or(CheckRotateEvery(rotateEvery), CheckAnnounceFor(announceFor)); err != nil {
		return err
	}
	if announceFor >= rotateEvery {
		return fmt.Errorf("announce_for %v is not shorter than rotate_every %v: a key would be replaced before it signs; make announce_for shorter or rotate_every longer", announceFor, rotateEvery)
	}
	return nil
}

// CheckRotateEvery returns what is wrong with the time that a key signs.
func CheckRotateEvery(d time.Duration) error {
	if d < minRotateEvery {
		return fmt.Errorf("rotate_every %v is too short; use at least %v", d, minRotateEvery)
	}
	return nil
}

// CheckAnnounceFor returns what is wrong with the time that a key is
// announced.
func CheckAnnounceFor(d time.Duration) error {
	if d < minAnnounceFor {
		return fmt.Errorf("announce_for %v is too short; use at least %v", d, minAnnounceFor)
	}
	return nil
}
