/** Says of a text that is too long how much too long it is; a browser would cut it off unseen. */

for (const field of document.querySelectorAll("textarea[data-most]")) {
  const check = () => {
    const length = field.value.length;
    const said = field.dataset.tooLong.replace("{length}", length).replace("{most}", field.dataset.most);
    field.setCustomValidity(length > Number(field.dataset.most) ? said : "");
  };
  field.addEventListener("input", check);
  check();
}
