"""A shop's page in small: JSON in, a regular expression, sorting, text out, compressed."""
import json
import re
import zlib

PRICES = json.dumps([{"name": f"thing {n}", "price": n * 7 % 97} for n in range(400)])
WORD = re.compile(r"([a-z]+) (\d+)")


class Page:
    def parse(self):
        return json.loads(PRICES)

    def rank(self, things):
        return sorted(things, key=lambda thing: (thing["price"], thing["name"]))

    def render(self, things):
        rows = [WORD.sub(r"<b>\1</b> \2", thing["name"]) for thing in things]
        return "\n".join(f"<li>{row}</li>" for row in rows)

    def respond(self):
        return zlib.compress(self.render(self.rank(self.parse())).encode())


def serve():
    while True:
        Page().respond()


if __name__ == "__main__":
    serve()
