/** The personal link as the browser knows it: the server need not know where a proxy has put it. */

const link = document.getElementById("personal");
link.textContent = link.href;
