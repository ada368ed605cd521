"""The board as a person and as a program see it."""

import http.client

from tests.browsers import until

TASK, DESIGNS = "chain", ("sparse", "shaping")
SMALL = {"num_envs": 4, "num_steps": 32}


def get(page, where, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    connection.request(method, where if where.startswith("/") else page.base + where, headers=headers)
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, body, dict(reply.getheaders())


class Seer:
    """What a person sees of a page."""

    def __init__(self, browser, page):
        self.browser, self.page = browser, page

    def open(self, path=""):
        self.browser.get(f"{self.page.url}view/{path}" if path else self.page.url)
        return self

    def text(self, panel):
        found = self.browser.find_elements("css selector", f"section[data-panel='{panel}']")
        if found and not found[0].get_attribute("data-shown"):
            self.browser.execute_script("arguments[0].scrollIntoView()", found[0])
        return found[0].text if found else ""

    def wait(self, panel, *words, seconds=60):
        until(self.browser, lambda: all(word in self.text(panel) for word in words), seconds)
        return self.browser.find_element("css selector", f"section[data-panel='{panel}']")

    def one(self, selector):
        return until(self.browser, lambda: self.browser.find_element("css selector", selector))

    def errors(self):
        return [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
