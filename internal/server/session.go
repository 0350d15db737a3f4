package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/token"
)

// signIn is the one operation that the code of a link is good for.
const signIn = "sign-in"

// NewLink asks for a link to sign in.
type NewLink struct {
	Role access.Role `json:"role" enum:"viewer,deployer,operator,admin" doc:"of the session: at most that of who asks"`
}

// Link is a new link's code, which is not kept.
type Link struct {
	ID      string      `json:"id"`
	Name    string      `json:"name" doc:"by which the session acts"`
	Role    access.Role `json:"role" enum:"viewer,deployer,operator,admin"`
	Expires time.Time   `json:"expires" doc:"until when the code can be exchanged, once"`
	Code    string      `json:"code"`
}

type codeKey struct{}

func (s *Server) sessionOperations() {
	secret := map[string]any{metaSecret: true}
	register(s, huma.Operation{OperationID: "create-link", Method: http.MethodPost, Path: "/v1/links", Summary: "Make a code by which a browser signs in, once", Metadata: secret}, func(ctx context.Context, in *body[NewLink]) (*out[Link], error) {
		l, code, err := s.tokens.Link(ctx, access.Of(ctx), in.Body.Role)
		return answer(Link{l.ID, l.Name, l.Role, l.Expires, code}, err)
	})
	register(s, huma.Operation{OperationID: signIn, Method: http.MethodPost, Path: "/v1/session", Summary: "Exchange a link's code, which stands in the place of a token, for a session's token", Metadata: secret}, func(ctx context.Context, _ *struct{}) (*out[Minted], error) {
		code, ok := ctx.Value(codeKey{}).(string)
		if !ok {
			return nil, problem(&fault.Error{Kind: fault.Invalid, Op: "sign in", Message: "a session begins with the code of a link, not with a token", Hint: "dayfly console makes a link; a token asks the API by itself"})
		}
		t, secret, err := s.tokens.SignIn(ctx, code)
		if errors.Is(err, token.ErrCode) { // used by somebody since guard looked
			return nil, &Problem{Title: http.StatusText(http.StatusUnauthorized), Status: http.StatusUnauthorized, Detail: token.ErrCode.Message, Kind: fault.Denied, Hint: token.ErrCode.Hint}
		}
		return answer(Minted{shown(t), secret}, err)
	})
	register(s, huma.Operation{OperationID: "sign-out", Method: http.MethodDelete, Path: "/v1/session", Summary: "End the session whose token asks", DefaultStatus: http.StatusNoContent}, func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		id, _ := strings.CutPrefix(access.Of(ctx).ID, "token:")
		return nil, problem(s.tokens.SignOut(ctx, id))
	})
}
