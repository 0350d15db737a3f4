package haproxy

import "testing"

func TestParseStats(t *testing.T) {
	const answer = "# pxname,svname,qcur,scur,status,check_status,check_code,last_chk,\n" +
		"be_a,s1,7,3,UP,* L7OK,200,\"HTTP status, or \"\"so\"\"\",\n" +
		"be_a,s2,,,DOWN 1/2,L4CON,,Connection refused,\n\n"
	rows, err := parseStats(answer)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%v %v", rows, err)
	}
	if r := rows[0]; r[pxname] != "be_a" || r[svname] != "s1" || r.int(scur) != 3 || r[status] != "UP" || r[checkCode] != "200" || r[lastChk] != `HTTP status, or "so"` {
		t.Errorf("%q", r)
	}
	if r := rows[1]; r[svname] != "s2" || r.int(scur) != 0 || r[status] != "DOWN 1/2" || detail(&r) != "connection refused" {
		t.Errorf("%q", r)
	}
	for _, bad := range []string{"", "Unknown command", "\n# a,b"} {
		if _, err := parseStats(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	// What is cut off is no reason to fall over.
	for n := range len(answer) {
		_, _ = parseStats(answer[:n])
	}
}
