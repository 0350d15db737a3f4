package pipeline

import (
	"testing"
	"time"
)

func TestReadJUnit(t *testing.T) {
	var s Suite
	err := s.ReadJUnit([]byte(`<?xml version="1.0"?><testsuites><testsuite name="a"><testcase classname="api" name="one"/>
<testcase name="two"><failure message="expected 200, got 500">trace</failure></testcase>
<testcase name="three"><error>
boom
more</error></testcase><testsuite name="inner"><testcase name="four"><skipped/></testcase></testsuite></testsuite></testsuites>`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Passed != 1 || s.Failed != 2 || s.Skipped != 1 {
		t.Errorf("%d passed, %d failed, %d skipped", s.Passed, s.Failed, s.Skipped)
	}
	if s.Failures[0] != (Failure{"two", "expected 200, got 500"}) || s.Failures[1].Message != "boom" {
		t.Errorf("failures are %+v", s.Failures)
	}
	s.Ended = time.Unix(1, 0)
	if s.OK() {
		t.Error("a suite with failures is not OK")
	}
	for _, bad := range []string{"", "<testsuite/>", "<testsuite><testcase", "no xml"} {
		if err := new(Suite).ReadJUnit([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzReadJUnit(f *testing.F) {
	f.Add([]byte(`<testsuite><testcase name="x"><failure/></testcase></testsuite>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Suite
		if err := s.ReadJUnit(b); err == nil && s.Passed+s.Failed+s.Skipped == 0 {
			t.Error("nothing was counted")
		}
	})
}
