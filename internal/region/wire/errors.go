package wire

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"
)

// Protocols of the error encoder besides those of a Model.
const ProtocolS3 = "s3"

// translated are the codes that the services name differently for the same
// thing. The decoders, the authenticator and the authorizer speak the query
// services' dialect ("" below).
var translated = map[string]map[string]Error{
	"ec2": {
		"AccessDenied":               {Code: "UnauthorizedOperation", Status: http.StatusForbidden},
		"InvalidClientTokenId":       {Code: "AuthFailure", Status: http.StatusUnauthorized, Message: "AWS was not able to validate the provided access credentials"},
		"SignatureDoesNotMatch":      {Code: "AuthFailure", Status: http.StatusUnauthorized, Message: "AWS was not able to validate the provided access credentials"},
		"IncompleteSignature":        {Code: "AuthFailure", Status: http.StatusUnauthorized},
		"RequestTimeTooSkewed":       {Code: "RequestExpired", Status: http.StatusBadRequest},
		"ExpiredToken":               {Code: "RequestExpired", Status: http.StatusBadRequest, Message: "Request has expired."},
		"MissingAuthenticationToken": {Code: "AuthFailure", Status: http.StatusUnauthorized, Message: "AWS was not able to validate the provided access credentials"},
		"InternalFailure":            {Code: "InternalError", Status: http.StatusInternalServerError},
		"XAmzContentSHA256Mismatch":  {Code: "AuthFailure", Status: http.StatusUnauthorized, Message: "AWS was not able to validate the provided access credentials"},
		"InvalidCredentialScope":     {Code: "AuthFailure", Status: http.StatusUnauthorized},
	},
	"query": {
		"RequestTimeTooSkewed":      {Code: "SignatureDoesNotMatch", Status: http.StatusForbidden},
		"XAmzContentSHA256Mismatch": {Code: "SignatureDoesNotMatch", Status: http.StatusForbidden},
		"InvalidCredentialScope":    {Code: "SignatureDoesNotMatch", Status: http.StatusForbidden},
	},
	"json": {
		"AccessDenied":               {Code: "AccessDeniedException", Status: http.StatusBadRequest},
		"InvalidClientTokenId":       {Code: "UnrecognizedClientException", Status: http.StatusBadRequest},
		"SignatureDoesNotMatch":      {Code: "InvalidSignatureException", Status: http.StatusBadRequest},
		"IncompleteSignature":        {Code: "IncompleteSignatureException", Status: http.StatusBadRequest},
		"RequestTimeTooSkewed":       {Code: "InvalidSignatureException", Status: http.StatusBadRequest},
		"ExpiredToken":               {Code: "ExpiredTokenException", Status: http.StatusBadRequest},
		"MissingAuthenticationToken": {Code: "MissingAuthenticationTokenException", Status: http.StatusBadRequest},
		"XAmzContentSHA256Mismatch":  {Code: "InvalidSignatureException", Status: http.StatusBadRequest},
		"InvalidCredentialScope":     {Code: "InvalidSignatureException", Status: http.StatusBadRequest},
		"InvalidAction":              {Code: "UnknownOperationException", Status: http.StatusBadRequest},
	},
	ProtocolS3: {
		"InvalidClientTokenId":       {Code: "InvalidAccessKeyId", Status: http.StatusForbidden, Message: "The AWS Access Key Id you provided does not exist in our records."},
		"ExpiredToken":               {Code: "ExpiredToken", Status: http.StatusBadRequest, Message: "The provided token has expired."},
		"MissingAuthenticationToken": {Code: "AccessDenied", Status: http.StatusForbidden, Message: "Access Denied"},
		"IncompleteSignature":        {Code: "AuthorizationHeaderMalformed", Status: http.StatusBadRequest},
		"InternalFailure":            {Code: "InternalError", Status: http.StatusInternalServerError},
		"InvalidCredentialScope":     {Code: "AuthorizationHeaderMalformed", Status: http.StatusBadRequest},
		"XAmzContentSHA256Mismatch":  {Code: "XAmzContentSHA256Mismatch", Status: http.StatusBadRequest},
	},
}

func translate(protocol string, e *Error) *Error {
	out := *e
	if out.Status == 0 {
		out.Status = http.StatusBadRequest
	}
	if t, ok := translated[protocol][e.Code]; ok {
		out.Code, out.Status = t.Code, t.Status
		if t.Message != "" {
			out.Message = t.Message
		}
	}
	return &out
}

// WriteError answers with an error in a protocol's own form: "ec2", "query",
// "json" or ProtocolS3.
func WriteError(w http.ResponseWriter, r *http.Request, protocol, requestID string, e *Error) {
	e = translate(protocol, e)
	h := w.Header()
	var body []byte
	switch protocol {
	case "json":
		h.Set("Content-Type", "application/x-amz-json-1.1")
		h.Set("X-Amzn-ErrorType", e.Code)
		// Some of the service's errors carry message and some Message; clients
		// look for one or the other.
		body, _ = json.Marshal(struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
			Capital string `json:"Message"`
		}{e.Code, e.Message, e.Message})
	case "ec2":
		h.Set("Content-Type", "text/xml;charset=UTF-8")
		body = []byte(xml.Header + "<Response><Errors><Error>" + elem("Code", e.Code) + elem("Message", e.Message) + "</Error></Errors>" + elem("RequestID", requestID) + "</Response>\n")
	case ProtocolS3:
		h.Set("Content-Type", "application/xml")
		body = []byte(xml.Header + "<Error>" + elem("Code", e.Code) + elem("Message", e.Message) + elem("Resource", r.URL.Path) + elem("RequestId", requestID) + elem("HostId", requestID) + "</Error>\n")
	default:
		who := "Sender"
		if e.Status >= 500 {
			who = "Receiver"
		}
		h.Set("Content-Type", "text/xml")
		body = []byte(xml.Header + "<ErrorResponse><Error>" + elem("Type", who) + elem("Code", e.Code) + elem("Message", e.Message) + "</Error>" + elem("RequestId", requestID) + "</ErrorResponse>\n")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		w.Write(body) // a client that went away needs no answer
	}
}

func elem(name, text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text))
	return "<" + name + ">" + b.String() + "</" + name + ">"
}
