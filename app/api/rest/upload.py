"""A multipart upload read as it comes: the file's bytes go to the store piece by piece, never into
memory or a temporary file as a whole."""

from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.core.errors import Invalid

_LONGEST_FIELD = 1_000


def _broken() -> Invalid:
    return Invalid("The upload broke off or is not well formed. Send it again.", path=("file",))


class Upload:
    """Iterate `chunks` to its end first; `filename` and `fields` are complete only then."""

    def __init__(self, request: Request) -> None:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise Invalid(
                "Send multipart/form-data with the parts purpose and file.", path=("file",)
            )
        self._request = request
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self._ready: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._header_name = self._header_value = b""
        self._name = ""
        self._is_file = self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes. Raises Invalid when the body is not well formed or has no file."""
        try:
            async for data in self._request.stream():
                self._parser.write(data)
                ready, self._ready = self._ready, []
                for piece in ready:
                    yield piece
        except FormParserError as wrong:
            raise _broken() from wrong
        if not self._complete:  # the parser itself takes a body without its end for a whole one
            raise _broken()
        if self.filename is None:
            raise Invalid("The part named file is missing.", path=("file",))

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._is_file = self._name == "file" and self.filename is None
        if self._is_file:
            self.filename = options.get(b"filename", b"upload.jsonl").decode(errors="replace")

    def _on_end(self) -> None:
        self._complete = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._ready.append(bytes(data[start:end]))
        else:
            value = self.fields.get(self._name, "") + data[start:end].decode(errors="replace")
            if len(value) > _LONGEST_FIELD or len(self.fields) > 20:
                raise Invalid("A form field is too long.", path=(self._name[:60],))
            self.fields[self._name] = value
