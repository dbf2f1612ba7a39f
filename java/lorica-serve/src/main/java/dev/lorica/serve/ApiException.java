package dev.lorica.serve;

import com.fasterxml.jackson.databind.node.ObjectNode;

/** A request that is answered with an error, in OpenAI's form. */
final class ApiException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final int status;
    private final String type;
    private final String param;
    private final String code;

    private ApiException(int status, String type, String param, String code, String message) {
        super(message, null, false, false);
        this.status = status;
        this.type = type;
        this.param = param;
        this.code = code;
    }

    static ApiException of(int status, String type, String code, String message) {
        return new ApiException(status, type, null, code, message);
    }

    /** A field of the request that is wrong. */
    static ApiException field(String param, String message) {
        return new ApiException(400, "invalid_request_error", param, null, message);
    }

    static ApiException field(String param, String code, String message) {
        return new ApiException(400, "invalid_request_error", param, code, message);
    }

    static ApiException wrong(String message) {
        return field(null, message);
    }

    int status() {
        return status;
    }

    ObjectNode json() {
        ObjectNode answer = Json.object();
        answer.putObject("error")
                .put("message", getMessage())
                .put("type", type)
                .put("param", param)
                .put("code", code);
        return answer;
    }
}
